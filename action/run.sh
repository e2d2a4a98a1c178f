#!/usr/bin/env bash
# Runs pytest on what the inputs name; its exit status is pytest's.
set -euo pipefail

folder=$RUNNER_TEMP/llmmem/$NAME
mkdir -p "$folder"
echo "folder=$folder" >> "$GITHUB_OUTPUT"

command=("$PYTHON" -m pytest "--llm-report=$folder/memory.json" "--llm-report=$folder/memory.html")

while read -r line; do
  [[ -z $line ]] || command+=("--llm-model=$line")
done <<< "$MODEL"

# xargs knows the shell's quotes, and nothing else of the shell
words=$(xargs printf '%s\n' <<< "$ARGS")
while IFS= read -r word; do
  [[ -z $word ]] || command+=("$word")
done <<< "$words"

[[ -z $ENFORCE ]] || command+=("--llm-enforce=$ENFORCE")
[[ $ENFORCE != cgroup ]] || command=(bash "$(dirname "$0")/own_group.sh" "${command[@]}")

exec "${command[@]}"
