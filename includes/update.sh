{%- from 'includes/source.jinja' import source -%}
source={{ source(_copier_answers._src_path) | quote }}
if [[ "$source" != *://* && ! -d "$source" ]]; then
  echo "The template $source is a folder on another machine. Write its address here and as _src_path in .copier-answers.yml."
  exit 0
fi
git stash --quiet --include-untracked # files that uv sync wrote, such as uv.lock: an update needs a clean tree
git for-each-ref --format='%(refname:short)' 'refs/heads/ostinato-update-*' | xargs --no-run-if-empty git branch --quiet -D
before=$(git rev-parse HEAD) code=0
uvx --from "$source" ostinato update > "$report" 2>&1 || code=$?
cat "$report"
if [[ $code == 0 ]]; then
  if [[ $(git rev-parse HEAD) == "$before" ]]; then exit 0; fi # no newer version
  branch=ostinato-update-$(sed -n 's/^_commit: //p' .copier-answers.yml | tr -d "\"'")
  git branch "$branch"
  title="Update the template: tested"
else
  branch=$(git for-each-ref --format='%(refname:short)' 'refs/heads/ostinato-update-*')
  if [[ -z "$branch" ]]; then exit "$code"; fi # there is no update, for the reason above
  title="Update the template: needs a hand"
fi
if git ls-remote --exit-code --heads origin "$branch"; then
  echo "$branch was proposed before. Merge it, or delete it for a new proposal."
  exit 0
fi
