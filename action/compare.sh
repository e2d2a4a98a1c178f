#!/usr/bin/env bash
# Compares memory.json with the base branch's newest. The text goes to comparison.md, the run's summary and an output.
set -euo pipefail

new=$FOLDER/memory.json
old=$RUNNER_TEMP/llmmem-base/$NAME/memory.json
text=$FOLDER/comparison.md

warn() { echo "::warning title=llmmem::$1"; }

if [[ ! -s $new ]]; then
  warn "pytest wrote no report, so nothing is compared"
  exit 0
fi

# Of the 100 newest artifacts of this name. A fork may have a branch of that name too, and this run is no base of itself.
newest='[.artifacts[] | select(.expired | not) | .workflow_run
  | select(.head_branch == env.BASE and .head_repository_id == .repository_id and "\(.id)" != env.GITHUB_RUN_ID)
][0].id // empty'
artifacts=repos/$GITHUB_REPOSITORY/actions/artifacts
if ! run=$(gh api --method GET "$artifacts" -f name="$NAME" -F per_page=100 --jq "$newest"); then
  warn "the artifacts cannot be listed: give the job the permission 'actions: read'"
elif [[ -n $run ]]; then
  gh run download "$run" --repo "$GITHUB_REPOSITORY" --name "$NAME" --dir "$(dirname "$old")" ||
    warn "the artifact $NAME of run $run cannot be downloaded"
fi

status=0
{
  echo "### Memory against \`$BASE\`"
  echo
  if [[ -s $old ]]; then
    "$PYTHON" -m pytest_llmmem compare "$old" "$new" --tolerance="$TOLERANCE" --format=markdown || status=$?
  else
    echo "No run on \`$BASE\` has an artifact \`$NAME\` to compare with."
  fi
  echo
  echo "<sub>\`$NAME\` of [this run]($GITHUB_SERVER_URL/$GITHUB_REPOSITORY/actions/runs/$GITHUB_RUN_ID)</sub>"
} > "$text"
cat "$text" >> "$GITHUB_STEP_SUMMARY"

grew=(false true)
end=end-$RANDOM$RANDOM$RANDOM
{
  [[ ! -s $old ]] || echo "grew=${grew[status]-}"
  echo "text<<$end"
  cat "$text"
  echo "$end"
} >> "$GITHUB_OUTPUT"

if ((status == 1)); then
  warn "tests need more memory than on $BASE: see the run's summary"
  [[ $FAIL_ON_GROWTH == true ]] || status=0
fi
exit "$status"
