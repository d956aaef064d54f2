#!/usr/bin/env bash
# The whole pipeline, by verbs. Each can be run again alone; `bash script.sh` runs them in order on the built-in sample.
#
#   bash script.sh                everything on the sample: ten minutes on two cores, no network beyond pip
#   bash script.sh test [FILE]    set up, then the tests
#   bash script.sh reddit         everything on the Reddit data, on the GPU if there is one
#   bash script.sh own FILE...    everything on your own dumps, listings or tables of Reddit posts (see submissions.py)
#   bash script.sh own FOLDER     on your own pictures, a folder per community; or on a CSV file of file,score
#   bash script.sh rank FOLDER    rank pictures with the newest ranker (also archives, lists, addresses; several at once)
#   bash script.sh doctor         what will work on this machine, and what will not
#   bash script.sh VERB [sample|reddit|own]
#
# Verbs: set-up, sample, submissions, download, copies, data, classifier, compare, siamese, rank, context, report, demo,
# table, test. In a chain, a step is skipped if its output exists and its command and inputs are unchanged; called by its
# verb, it always runs. `own` without a FILE continues with the files already read; DATA_SET=cats uses data/cats instead.
# CHECK_POINT=RUN/best.pt selects another ranker; `rank FOLDER` may be followed by more folders and flags of rank_images.py.
# Extra flags: CLASSIFIER_FLAGS="--epochs 5" SIAMESE_FLAGS="--model_type 2" bash script.sh siamese
#              DOWNLOAD_FLAGS="--contact you@example.org --archive" bash script.sh reddit
#              SUBMISSIONS_FLAGS="--subreddits pics" COPIES_FLAGS="--undo groups.csv" bash script.sh own FILE...
#              likewise VIRALITY_FLAGS, DATA_FLAGS
set -euo pipefail
FROM=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")"

sha() { # hashes as sha256sum prints them, which macOS lacks
  if command -v sha256sum >/dev/null; then sha256sum "$@"; else shasum -a 256 "$@"; fi
}

usage() { sed -n '2,20s/^# \{0,1\}//p' "$0"; }

set_up() { # a .venv of our own unless one is active, and what the requirements file named by $1 pins
  if [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ]; then
    [ -x .venv/bin/python ] || { echo "== set-up: making .venv"; python3 -m venv .venv; }
    # shellcheck disable=SC1091
    source .venv/bin/activate
  fi
  local stamp="${VIRTUAL_ENV:-$CONDA_PREFIX}/.image-virality-$1-$(cat requirements*.txt | sha | cut -c1-16)"
  [ -e "$stamp" ] && return
  echo "== set-up: installing $1 (torch is large: some minutes)"
  python -m pip install --quiet --disable-pip-version-check -r "$1"
  touch "$stamp"
}

# step NAME OUTPUT "INPUTS" COMMAND...: run the command unless its output is there and it and its inputs are unchanged.
step() {
  local name=$1 output=$2 inputs=$3 stamp key
  shift 3
  stamp="$OUT/.steps/$name"
  for key in $inputs; do
    [ -e "$key" ] || { echo "error: $name needs $key, which is not here: first the steps before it" >&2; return 2; }
  done
  # shellcheck disable=SC2086
  key=$({ echo "$@"; [ -z "$inputs" ] || sha $inputs; } | sha)
  if [ "$CHAIN" = 1 ] && [ -e "$output" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$key" ]; then
    echo "== $name: done before ($output)"
    return
  fi
  echo "== $name: python $*"
  local began=$SECONDS
  python "$@" || return $?
  mkdir -p "$OUT/.steps" && echo "$key" >"$stamp"
  took "$name" "$began"
}

took() { # $1, which began at the second $2
  local seconds=$((SECONDS - $2))
  if [ "$seconds" -ge 60 ]; then
    echo "   $1 took $((seconds / 60)) min $((seconds % 60)) s"
  else
    echo "   $1 took $seconds s"
  fi
}

use() { # the data set named by $1, and the flags that go with it
  local name=$1
  PICTURES="" CLASSES_FLAGS=()
  case "$1" in
    sample) # its signs are drawn: they take no augmentation and few epochs to tell apart
      TRAIN=(--weights none --image_size 128) SIAMESE_TYPES=(1)
      CLASSES_FLAGS=(--epochs 8 --augment crop --label_smoothing 0) ;;
    reddit) TRAIN=(--weights imagenet --image_size 224 --check_point last) SIAMESE_TYPES=(0 1 2) ;;
    own)
      name=${DATA_SET:-own}
      case "$name" in
        *[!A-Za-z0-9._-]* | .* | -* | sample | reddit) echo "error: DATA_SET=$name cannot be the name of your data" >&2; exit 2 ;;
      esac
      TRAIN=(--weights imagenet --image_size 224 --check_point last) SIAMESE_TYPES=(1)
      PICTURES="data/$name/survivors.json" # which pictures are here
      ;;
    *) echo "error: unknown data set '$1': sample, reddit or own" >&2; exit 2 ;;
  esac
  DATA="data/$name" OUT="outputs/$name"
  SUBMISSIONS="$DATA/redditSubmissions.csv.gz" TABLE="$DATA/datasets/data_set_iv.csv"
  CLASSES="$DATA/datasets/image4classification.csv"
  [ "$1" != own ] || SUBMISSIONS="$DATA/submissions.csv.gz"
}

sample() { step sample "$DATA/sample.json" "sample_data.py" sample_data.py --output "$DATA"; }

given() { # FILES: what the command names, from where it was started
  local i
  FILES=("$@")
  for ((i = 0; i < $#; i++)); do
    case "${FILES[i]}" in /*) ;; *) FILES[i]="$FROM/${FILES[i]}" ;; esac
  done
}

are_pictures() { # whether `own` was given a folder, or a CSV file of file,score; without a FILE, whether it was before
  local columns=""
  [ "${#FILES[@]}" != 0 ] || { [ -e "$DATA/datasets/files.csv" ] && return; return 1; }
  [ ! -d "${FILES[0]}" ] || return 0
  case "${FILES[0]}" in *.csv) ;; *) return 1 ;; esac
  IFS= read -r columns <"${FILES[0]}" 2>/dev/null || true
  columns=",$(echo "$columns" | tr -d '\r" \357\273\277'),"
  [[ $columns =~ ,(file|path), && $columns =~ ,(score|v_score), && ! $columns =~ ,(url|subreddit|permalink|image_id), ]]
}

pictures() { # tables of one's own pictures, and links to these; always looked at anew, for it takes seconds
  PICTURES="$OUT/.steps/pictures"
  if [ "${#FILES[@]}" = 0 ]; then
    echo "== pictures: those of $DATA"
    return
  fi
  if [ -e "$SUBMISSIONS" ]; then
    echo "error: $DATA holds posts, not your own pictures: DATA_SET=NAME bash script.sh own FOLDER keeps the two apart" >&2
    exit 2
  fi
  if [ "${#FILES[@]}" != 1 ]; then
    echo "error: own takes one folder of pictures, or one CSV file of file,score, not ${#FILES[@]} (${FILES[*]})" >&2
    exit 2
  fi
  # shellcheck disable=SC2086
  if ! CHAIN=0 step pictures "$DATA/datasets/files.csv" "" data_set.py --from "${FILES[0]}" --data_path "$DATA" \
    ${DATA_FLAGS:-}; then
    [ ! -d "${FILES[0]}" ] || echo "To rank the pictures of a folder, without a training: bash script.sh rank FOLDER" >&2
    exit 2
  fi
  ls -lnL "$DATA/images" | awk '{print $5, $6, $7, $8, $9}' >"$PICTURES" # sizes, times and names
}

submissions() { # of the FILES: dumps, listings, tables
  local known="$OUT/.steps/files"
  if [ "${#FILES[@]}" = 0 ]; then
    [ -e "$SUBMISSIONS" ] || { echo "error: own needs posts or pictures: bash script.sh own FILE..., or bash script.sh own FOLDER" >&2; exit 2; }
    echo "== submissions: those of $SUBMISSIONS"
    return
  fi
  local each
  if [ -e "$DATA/datasets/files.csv" ]; then
    echo "error: $DATA holds your own pictures, not posts: DATA_SET=NAME bash script.sh own FILE... keeps the two apart" >&2
    exit 2
  fi
  for each in "${FILES[@]}"; do
    [ -f "$each" ] || { echo "error: $each is not a file" >&2; exit 2; }
  done
  mkdir -p "$OUT/.steps"
  ls -lL -- "${FILES[@]}" >"$known" || exit 2 # names, sizes and times: a hash of large dumps would take minutes
  # shellcheck disable=SC2086
  step submissions "$SUBMISSIONS" "$known submissions.py" submissions.py --output "$DATA" ${SUBMISSIONS_FLAGS:-} \
    -- "${FILES[@]}"
}

download() { # exit 1: some pictures may still come; the chain goes on with those that are here
  local status=0
  # shellcheck disable=SC2086
  step download "$DATA/survivors.json" "$([ -z "$PICTURES" ] || echo "$SUBMISSIONS")" download_images.py --data_path "$DATA" ${DOWNLOAD_FLAGS:-} || status=$?
  [ "$status" -le 1 ] || exit "$status"
  [ "$status" = 0 ] || echo "== download: some pictures may still come; run it again later"
}

copies() { # of the pictures that are here, and a page to look at them
  mkdir -p "$OUT" "$DATA/datasets"
  # shellcheck disable=SC2086
  step copies "$DATA/datasets/groups.csv" "$SUBMISSIONS $PICTURES duplicates.py" duplicates.py "$DATA" \
    --output "$DATA/datasets/groups.csv" --page "$OUT/copies.html" ${COPIES_FLAGS:-}
}

data() {
  if [ -n "$PICTURES" ]; then
    local groups="$DATA/datasets/groups.csv"
    # shellcheck disable=SC2086
    step virality "$TABLE" "$SUBMISSIONS $groups virality.py" virality.py "$SUBMISSIONS" --groups "$groups" \
      --output "$TABLE" ${VIRALITY_FLAGS:-}
  elif [ "$DATA" = data/sample ]; then
    step virality "$TABLE" "$SUBMISSIONS virality.py" virality.py "$SUBMISSIONS" --output "$TABLE"
  else # the published table, and beside it the same computed from SNAP's file, with how far the two agree
    local computed="$DATA/datasets/data_set_iv_snap.csv"
    step virality "$computed" "$SUBMISSIONS virality.py" virality.py "$SUBMISSIONS" \
      --keep "$DATA/deza2015/final_names.csv" --output "$computed"
    step published "$TABLE" "$computed deza2015.py" deza2015.py "$DATA/deza2015" --compare "$computed" --output "$TABLE"
  fi
  # shellcheck disable=SC2086
  step data "$DATA/processed/splits.csv" "$SUBMISSIONS $TABLE $PICTURES data_set.py communities.py" \
    data_set.py --data_path "$DATA" ${DATA_FLAGS:-}
}

# Own data may grow: a training goes on, or is done, only if its tables and pictures are those that it began with.
same_data() { # $1: the training, whose folder loses its state if they are not; $2: its table
  [ -n "$PICTURES" ] || return 0
  local began="$OUT/.steps/began_$1" key
  key=$(sha "$2" "$PICTURES" | sha)
  [ "$(cat "$began" 2>/dev/null)" = "$key" ] || rm -f "$OUT/$1/last.pt" "$OUT/$1/results.json"
  mkdir -p "$OUT/.steps" && echo "$key" >"$began"
}

classifier() { # on the Reddit data the four networks, whose comparison chooses the ranker's
  # shellcheck disable=SC2086
  [ "$DATA" != data/reddit ] || { compare; return; }
  if [ -n "$PICTURES" ] && [ ! -e "$CLASSES" ]; then
    echo "== classifier: left out, there are no two communities to tell"
    return
  fi
  same_data classifier "$CLASSES"
  # shellcheck disable=SC2086
  step classifier "$OUT/classifier/results.json" "$CLASSES $PICTURES" train_classifier.py --data_path "$DATA" \
    --save_dir "$OUT/classifier" "${TRAIN[@]}" ${CLASSES_FLAGS[@]+"${CLASSES_FLAGS[@]}"} ${CLASSIFIER_FLAGS:-}
}

compare() {
  # shellcheck disable=SC2086
  step compare "$OUT/choice.json" "$CLASSES" -m studies.comparison --data_path "$DATA" \
    --save_dir "$OUT" "${TRAIN[@]}" ${CLASSIFIER_FLAGS:-}
}

siamese() {
  local network=alexnet type
  [ ! -e "$OUT/choice.json" ] || network=$(sed -n 's/.*"ranker_model_name": "\([a-z]*\)".*/\1/p' "$OUT/choice.json")
  for type in "${SIAMESE_TYPES[@]}"; do
    same_data "siamese_$type" "$TABLE"
    # shellcheck disable=SC2086
    step "siamese_$type" "$OUT/siamese_$type/results.json" "$TABLE $PICTURES" train_siamese.py --data_path "$DATA" \
      --save_dir "$OUT/siamese_$type" --model_name "$network" --model_type "$type" "${TRAIN[@]}" \
      ${SIAMESE_FLAGS:-}
  done
}

rank() { # the held-out pictures, by the ranker of type 1
  local run="$OUT/siamese_1"
  step rank "$OUT/ranks.csv" "$run/best.pt $run/test_pictures.txt" rank_images.py "$run/test_pictures.txt" \
    --check_point "$run/best.pt" --output "$OUT/ranks.csv" --page "$OUT/leaderboard.html"
}

rank_pictures() { # $@: folders, archives, lists, addresses, and flags of rank_images.py
  local root=$PWD each newest=${CHECK_POINT:-} out where
  case "$1" in
    -*) echo "error: rank needs a folder first, then flags: bash script.sh rank FOLDER" >&2; exit 2 ;;
    http://* | https://* | /*) where=$1 ;;
    *) where="$FROM/$1" ;;
  esac
  if [[ ! $where =~ ^https?:// && ! -e $where ]]; then
    echo "error: $1 is neither a data set (sample, reddit, own) nor a folder or file here" >&2
    exit 2
  fi
  if [ -z "$newest" ]; then
    for each in "$root"/outputs/*/siamese_*/best.pt; do # results.json: of a training that is through
      if [ -e "$each" ] && [ -e "$(dirname "$each")/results.json" ]; then
        [ -n "$newest" ] && [ "$newest" -nt "$each" ] || newest=$each
      fi
    done
  fi
  if [ -z "$newest" ]; then
    echo "error: no ranker has been trained here. First: bash script.sh (on the built-in sample, ten minutes)," \
      "or CHECK_POINT=best.pt bash script.sh rank FOLDER with one from elsewhere" >&2
    exit 2
  fi
  set_up requirements.txt
  [ ! -d "$where" ] || where=$(cd "$where" && pwd) # `.` has a name too
  out="$root/outputs/ranked/$(basename "$where" | tr -c 'A-Za-z0-9._\n-' _)"
  mkdir -p "$out"
  echo "== rank: with ${newest#"$root"/} → ${out#"$root"/}"
  cd "$FROM"
  python "$root/rank_images.py" --check_point "$newest" --output "$out/ranks.csv" --page "$out/leaderboard.html" "$@"
}

context() { # what surrounds the posts beside the ranker, where it ranked enough of them; it is no fault to have no times
  local status=0 scores=()
  [ "$(wc -l <"$OUT/ranks.csv")" -le 30 ] || scores=(--scores "$OUT/ranks.csv")
  step context "$OUT/context.json" "$SUBMISSIONS $TABLE $OUT/ranks.csv context.py" context.py --data_path "$DATA" \
    --output "$OUT/context.json" ${scores[@]+"${scores[@]}"} || status=$?
  [ "$status" = 0 ] || [ "$CHAIN:$status" = 1:2 ] || exit "$status"
  [ "$status" = 0 ] || echo "== context: left out"
}

report() { python -m pages.summary "$OUT"; }

demo() { # the game and your own pictures, in a browser
  set_up requirements-demo.txt
  python demo.py --check_point "$OUT/siamese_1/best.pt" --data_path "$DATA"
}

table() { # the rankers of both recipes and all types, as many epochs, on three splits each: hours on two cores
  local recipe type
  for recipe in modern singh2016; do
    for type in 0 1 2; do
      # shellcheck disable=SC2086
      python train_siamese.py --data_path "$DATA" --recipe "$recipe" --model_type "$type" --seeds 0 1 2 "${TRAIN[@]}" \
        --epochs 30 --augment crop --check_point last --save_dir "$OUT/table/${recipe}_$type" ${SIAMESE_FLAGS:-}
    done
  done
  python -m pages.summary "$OUT/table"
}

everything() { # $@: how the pictures come, `sample` or `download`; before what they need, after it the copies
  CHAIN=1
  set_up requirements.txt
  local verb began=$SECONDS
  for verb in "$@"; do "$verb"; done
  data; classifier; siamese; rank; context; report
  took "everything" "$began"
}

everything_of_pictures() { # a folder has communities, for the classifier; a table of scores what the ranker takes
  CHAIN=1
  set_up requirements.txt
  local began=$SECONDS
  pictures; classifier
  if [ -e "$TABLE" ]; then
    siamese; rank
  else
    echo "== siamese: left out, it needs scores: bash script.sh own SCORES.csv, of the columns file,score"
  fi
  report
  took "everything" "$began"
}

verb=${1:-everything}
CHAIN=0
case "$verb" in
  everything) use sample; everything sample ;;
  reddit) use reddit; everything download ;;
  own)
    shift; use own; given "$@"
    if are_pictures; then everything_of_pictures; else everything submissions download copies; fi ;;
  doctor)
    python=python3
    [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] || python=python
    [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] || [ ! -x .venv/bin/python ] || python=.venv/bin/python
    command -v "$python" >/dev/null || { echo "error: there is no $python here: install Python 3.11 or newer" >&2; exit 2; }
    exec "$python" doctor.py "${@:2}" ;;
  test) shift; set_up requirements-dev.txt; exec python -m pytest "$@" ;;
  set-up) set_up requirements.txt ;;
  sample) use sample; set_up requirements.txt; sample ;;
  submissions) use own; given "${@:2}"; set_up requirements.txt; submissions ;;
  download) use "${2:-reddit}"; set_up requirements.txt; download ;;
  copies) use own; set_up requirements.txt; copies ;;
  rank)
    case "${2:-sample}" in
      sample | reddit | own) use "${2:-sample}"; set_up requirements.txt; rank ;;
      *) shift; rank_pictures "$@" ;;
    esac ;;
  data | classifier | compare | siamese | context | report | demo | table)
    use "${2:-sample}"; set_up requirements.txt; "$verb" ;;
  -h | --help) usage ;;
  *) echo "error: unknown verb '$verb'" >&2; usage >&2; exit 2 ;;
esac
