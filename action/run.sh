#!/usr/bin/env bash
# Runs pytest, or a sweep, on what the inputs name; its exit status is theirs.
set -euo pipefail

folder=$RUNNER_TEMP/llmmem/$NAME
mkdir -p "$folder"
echo "folder=$folder" >> "$GITHUB_OUTPUT"

if [[ -n $SWEEP ]]; then
  if [[ -n $MODEL$ARGS$ENFORCE ]]; then
    echo "::error title=llmmem::the file of the sweep names models and arguments: leave model, args and enforce out"
    exit 2
  fi
  results=$RUNNER_TEMP/llmmem-sweep/$NAME status=0
  "$PYTHON" -m pytest_llmmem sweep --out="$results" -- "$SWEEP" || status=$?
  for ending in json html; do
    [[ ! -e $results/report.$ending ]] || cp "$results/report.$ending" "$folder/memory.$ending"
  done
  exit "$status"
fi

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
