#!/usr/bin/env bash
# Everything that only a GPU can answer, in under 8 minutes and without a network.
# Usage: benchmarks/gpu_suite.sh [OUT]    PYTHON chooses the interpreter (torch 2.11 or later, CUDA).
# Each part has a time limit of its own, so one that hangs does not cost the others their turn.
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python}
OUT=${1:-gpu_results}
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1
mkdir -p "$OUT"
failed=0

part() { # NAME SECONDS COMMAND...
  local name=$1 limit=$2 began=$SECONDS code=0
  shift 2
  echo "== $name"
  timeout -k 10 "$limit" "$@" >"$OUT/$name.txt" 2>&1 || code=$?
  tail -n 40 "$OUT/$name.txt"
  echo "-- $name: exit $code after $((SECONDS - began)) s"
  [ "$code" -eq 0 ] || failed=1
}

"$PYTHON" - <<'PY' | tee "$OUT/machine.txt"
import torch

print(torch.__version__, torch.version.cuda, torch.cuda.get_device_name())
PY
[ "${PIPESTATUS[0]}" -eq 0 ] || { echo "no CUDA device"; exit 1; }

bench=("$PYTHON" -m stretto bench)
part weights 45 "$PYTHON" -m stretto.benchmarks.engine_setup random
gpu=(--model "$(tail -n 1 "$OUT/weights.txt")" --device cuda --dtype bfloat16)
part attention 45 "${bench[@]}" attention --device cuda --sizes 1,64,256 --contexts 128,1024 \
  --output "$OUT/attention.json"
part tests 100 "$PYTHON" -m pytest -q -m gpu -p no:cacheprovider tests
part step 60 "${bench[@]}" step "${gpu[@]}" --max-num-seqs 256 --sizes 1,16,64,256 --no-split \
  --platform-out "$OUT/platform.json" --output "$OUT/step.json"
part vocoder 30 "${bench[@]}" vocoder "${gpu[@]}" --rows 1,16,64 --frames 64,160 \
  --output "$OUT/vocoder.json"
part offline 60 "${bench[@]}" offline "${gpu[@]}" --max-num-seqs 256 --max-vocoder-frames 16384 \
  --batch-sizes 1,10,64,256,512 --frames 256 --output "$OUT/offline.json"

# One server, three loads: the twenty requests a second of the published figures, ten at once, one.
port=$((20000 + RANDOM % 20000))
"$PYTHON" -m stretto serve "${gpu[@]}" --max-num-seqs 256 --max-vocoder-frames 8192 \
  --port "$port" >"$OUT/server.txt" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null' EXIT
serve=("${bench[@]}" serve --base-url "http://127.0.0.1:$port" --no-progress --warmup 4
  --extra-body '{"max_new_tokens": 300}' --max-seconds-per-char 100 --timeout 60)
part serve20 75 "${serve[@]}" --request-rate 20 --duration 20 \
  --slo ttfa_p95_ms=50,underrun_rate=0 --output "$OUT/serve20"
part serve10 25 "${serve[@]}" --max-concurrency 10 --num-requests 40 --output "$OUT/serve10"
part serve1 20 "${serve[@]}" --max-concurrency 1 --num-requests 8 --output "$OUT/serve1"
kill "$server"
wait "$server" 2>/dev/null
trap - EXIT
echo "results in $OUT; took $SECONDS s"
exit "$failed"
