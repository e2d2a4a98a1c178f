#!/usr/bin/env bash
# own_group.sh COMMAND...: runs it in a control group of its own, which the plugin may divide among its workers.
# The kernel wants the command alone in there (cgroups(7), "no internal processes"), and root to make and enter it.
set -euo pipefail

root=/sys/fs/cgroup
group=$root/llmmem-$$

as_root() {
  if ((EUID == 0)); then "$@"; else sudo -n "$@"; fi
}

make_group() {
  grep -qw memory "$root/cgroup.controllers" &&
    as_root tee "$root/cgroup.subtree_control" <<< +memory &&
    as_root mkdir "$group" &&
    as_root chown "$UID" "$group" "$group"/cgroup.{procs,threads,subtree_control}
}

if ! make_group > /dev/null; then
  echo "::warning title=llmmem::no control group for pytest, which needs sudo and cgroup version 2: budgets are watched"
  exec "$@"
fi

status=0
(
  as_root tee "$group/cgroup.procs" <<< "$BASHPID" > /dev/null
  exec "$@"
) || status=$?
as_root rmdir "$group/llmmem-session" "$group" 2> /dev/null || true
exit "$status"
