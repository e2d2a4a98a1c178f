#!/usr/bin/env bash
# Writes comparison.md into the pull request's one comment of this name: a first line that is not shown marks it.
set -euo pipefail

export MARK="<!-- llmmem: $NAME -->"
comments=repos/$GITHUB_REPOSITORY/issues
body=$RUNNER_TEMP/llmmem-comment.md

# a comment may have 65,536 characters
{ echo "$MARK"; head -c 60000 "$FOLDER/comparison.md"; } > "$body"

write() {
  local ours
  ours=$(gh api --paginate "$comments/$NUMBER/comments" --jq '.[] | select(.body | startswith(env.MARK)) | .id') || return
  if [[ -n $ours ]]; then
    gh api --silent --method PATCH "$comments/comments/${ours%%$'\n'*}" -F body=@"$body"
  else
    gh api --silent --method POST "$comments/$NUMBER/comments" -F body=@"$body"
  fi
}

write || echo "::warning title=llmmem::no comment, which needs the permission 'pull-requests: write': the text is in the run's summary"
