#!/usr/bin/env bash
# The CPU numbers of RESULTS.md. Usage: benchmarks/measure_cpu.sh OUT [PART...]
# PYTHON chooses the interpreter; parts are those below, all of them by default.
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python}
OUT=$1
shift
PARTS=${*:-agreement step vocoder offline server vllm chattts transformers simulate}
export OMP_WAIT_POLICY=PASSIVE
mkdir -p "$OUT"
bench=("$PYTHON" -m stretto bench)
compare=("$PYTHON" -m stretto.benchmarks.compare)
full=(--model random --dtype bfloat16)

run() { # NAME COMMAND...
  local name=$1
  shift
  echo "== $name: $*" | tee "$OUT/$name.txt"
  "$@" >>"$OUT/$name.txt" 2>"$OUT/$name.err" || echo "exit $?" | tee -a "$OUT/$name.txt"
  tail -n +2 "$OUT/$name.txt"
}

server() {
  local port=$((20000 + RANDOM % 20000)) pid serve
  "$PYTHON" -m stretto serve --model default --port "$port" >"$OUT/server.log" 2>&1 &
  pid=$!
  serve=("${bench[@]}" serve --base-url "http://127.0.0.1:$port" --no-progress --texts en-short)
  run serve_one "${serve[@]}" --max-concurrency 1 --num-requests 20 --output "$OUT/serve_one"
  run serve_many "${serve[@]}" --sweep-concurrency 4,8,12 --num-requests 32 --output "$OUT/serve_many"
  run capacity "${bench[@]}" capacity --base-url "http://127.0.0.1:$port" --no-progress \
    --texts en-short --slo ttfa_p95_ms=300,underrun_rate=0.01 --duration 15 --start-rate 2 \
    --max-rate 16 --tolerance 0.15 --output "$OUT/capacity"
  kill "$pid"
  wait "$pid" 2>/dev/null
}

for part in $PARTS; do
  case $part in
    agreement)
      run agreement "${bench[@]}" agreement --model default --request-rate 2 --num-requests 30 \
        --frames 120 --output "$OUT/agreement.json"
      ;;
    step)
      run step "${bench[@]}" step "${full[@]}" --sizes 1,4,16,64 --output "$OUT/step.json"
      run step_default "${bench[@]}" step --model default --sizes 1,4,16,64 \
        --platform-out "$OUT/platform.json" --output "$OUT/step_default.json"
      ;;
    vocoder) run vocoder "${bench[@]}" vocoder "${full[@]}" --output "$OUT/vocoder.json" ;;
    offline)
      run offline "${bench[@]}" offline "${full[@]}" --frames 96 --output "$OUT/offline.json"
      run offline_default "${bench[@]}" offline --model default --batch-sizes 1,16,64 \
        --output "$OUT/offline_default.json"
      ;;
    server) server ;;
    vllm) run vllm "${compare[@]}" vllm --output "$OUT/vllm.json" ;;
    transformers)
      run transformers "${compare[@]}" transformers --output "$OUT/transformers.json"
      ;;
    chattts)
      run chattts "${compare[@]}" chattts --sizes 1,16 --rounds 1 --output "$OUT/chattts.json"
      ;;
    simulate)
      run simulate "${bench[@]}" simulate --platform t4-assumed --rates 4,8,16 --duration 30 \
        --policies stretto,static,serial,small-chunks --output "$OUT/simulate"
      ;;
    *) echo "no part $part" >&2; exit 2 ;;
  esac
done
