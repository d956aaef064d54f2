#!/usr/bin/env bash
# The whole pipeline, by verbs. Each can be run again alone; `bash script.sh` runs them in order on the built-in sample.
#
#   bash script.sh                everything on the sample: ten minutes on two cores, no network beyond pip
#   bash script.sh test [FILE]    set up, then the tests
#   bash script.sh reddit         everything on the Reddit data, on the GPU if there is one
#   bash script.sh VERB [sample|reddit]
#
# Verbs: set-up, sample, download, data, classifier, compare, siamese, rank, report, demo, table, test. In a chain a step
# is skipped when its output is there and its command and inputs are unchanged; named by its verb it always runs.
# Extra flags: CLASSIFIER_FLAGS="--epochs 5" SIAMESE_FLAGS="--model_type 2" bash script.sh siamese
#              DOWNLOAD_FLAGS="--contact you@example.org --archive" bash script.sh reddit
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

sha() { # hashes as sha256sum prints them, which macOS lacks
  if command -v sha256sum >/dev/null; then sha256sum "$@"; else shasum -a 256 "$@"; fi
}

usage() { sed -n '2,12s/^# \{0,1\}//p' "$0"; }

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
  # shellcheck disable=SC2086
  key=$({ echo "$@"; [ -z "$inputs" ] || sha $inputs; } | sha)
  if [ "$CHAIN" = 1 ] && [ -e "$output" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$key" ]; then
    echo "== $name: done before ($output)"
    return
  fi
  echo "== $name: python $*"
  python "$@" || return $?
  mkdir -p "$OUT/.steps" && echo "$key" >"$stamp"
}

use() { # the data set named by $1, and the flags that go with it
  DATA="data/$1" OUT="outputs/$1"
  SUBMISSIONS="$DATA/redditSubmissions.csv.gz" TABLE="$DATA/datasets/data_set_iv.csv"
  CLASSES="$DATA/datasets/image4classification.csv"
  case "$1" in
    sample) TRAIN=(--weights none --image_size 128) SIAMESE_TYPES=(1) EPOCHS=(--epochs 60) ;; # the windows need them
    reddit) TRAIN=(--weights imagenet --image_size 224 --check_point last) SIAMESE_TYPES=(0 1 2) EPOCHS=() ;;
    *) echo "error: unknown data set '$1': sample or reddit" >&2; exit 2 ;;
  esac
}

sample() { step sample "$DATA/sample.json" "sample_data.py" sample_data.py --output "$DATA"; }

download() { # exit 1: some pictures may still come; the chain goes on with those that are here
  local status=0
  # shellcheck disable=SC2086
  step download "$DATA/survivors.json" "" download_images.py --data_path "$DATA" ${DOWNLOAD_FLAGS:-} || status=$?
  [ "$status" -le 1 ] || exit "$status"
  [ "$status" = 0 ] || echo "== download: some pictures may still come; run it again later"
}

data() {
  if [ "$DATA" = data/sample ]; then
    step virality "$TABLE" "$SUBMISSIONS virality.py" virality.py "$SUBMISSIONS" --output "$TABLE"
  else # the published table, and beside it the same computed from SNAP's file, with how far the two agree
    local computed="$DATA/datasets/data_set_iv_snap.csv"
    step virality "$computed" "$SUBMISSIONS virality.py" virality.py "$SUBMISSIONS" \
      --keep "$DATA/deza2015/final_names.csv" --output "$computed"
    step published "$TABLE" "$computed deza2015.py" deza2015.py "$DATA/deza2015" --compare "$computed" --output "$TABLE"
  fi
  step data "$CLASSES" "$SUBMISSIONS $TABLE data_set.py" data_set.py --data_path "$DATA"
}

classifier() { # on the Reddit data the four networks, whose comparison chooses the ranker's
  # shellcheck disable=SC2086
  [ "$DATA" = data/sample ] || { compare; return; }
  # shellcheck disable=SC2086
  step classifier "$OUT/classifier/results.json" "$CLASSES" train_classifier.py --data_path "$DATA" \
    --save_dir "$OUT/classifier" "${TRAIN[@]}" ${CLASSIFIER_FLAGS:-}
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
    # shellcheck disable=SC2086
    step "siamese_$type" "$OUT/siamese_$type/results.json" "$TABLE" train_siamese.py --data_path "$DATA" \
      --save_dir "$OUT/siamese_$type" --model_name "$network" --model_type "$type" "${TRAIN[@]}" "${EPOCHS[@]}" \
      ${SIAMESE_FLAGS:-}
  done
}

rank() { # the held-out pictures, by the ranker of type 1
  local run="$OUT/siamese_1"
  step rank "$OUT/ranks.csv" "$run/best.pt $run/test_pictures.txt" rank_images.py "$run/test_pictures.txt" \
    --check_point "$run/best.pt" --output "$OUT/ranks.csv" --page "$OUT/leaderboard.html"
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
        --epochs 30 --check_point last --save_dir "$OUT/table/${recipe}_$type" ${SIAMESE_FLAGS:-}
    done
  done
  python -m pages.summary "$OUT/table"
}

everything() { # $1: how the pictures come, `sample` or `download`
  CHAIN=1
  set_up requirements.txt
  "$1"; data; classifier; siamese; rank; report
}

verb=${1:-everything}
CHAIN=0
case "$verb" in
  everything) use sample; everything sample ;;
  reddit) use reddit; everything download ;;
  test) shift; set_up requirements-dev.txt; exec python -m pytest "$@" ;;
  set-up) set_up requirements.txt ;;
  sample) use sample; set_up requirements.txt; sample ;;
  download) use reddit; set_up requirements.txt; download ;;
  data | classifier | compare | siamese | rank | report | demo | table) use "${2:-sample}"; set_up requirements.txt; "$verb" ;;
  -h | --help) usage ;;
  *) echo "error: unknown verb '$verb'" >&2; usage >&2; exit 2 ;;
esac
