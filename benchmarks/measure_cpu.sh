#!/usr/bin/env bash
# The CPU numbers of RESULTS.md, each under the section that it belongs to, with its command.
# Usage: benchmarks/measure_cpu.sh OUT [PART...]    PYTHON chooses the interpreter.
# DRY=1 prints the commands and runs nothing. Parts are those below, all of them by default; the
# settings here are those that RESULTS.md states, so change them only together.
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python}
DRY=${DRY:-}
OUT=$1
shift
PARTS=${*:-step engine scheduler vocoder offline server chattts vllm transformers agreement simulate}
mkdir -p "$OUT"
full=(--model random --dtype bfloat16)
section=

free_port() {
  "$PYTHON" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

run() { # NAME COMMAND...
  local name=$1 shown
  shift
  shown="$*"
  shown=${shown//"$PYTHON -m stretto bench"/stretto bench}
  shown=${shown//"$PYTHON -m stretto serve"/stretto serve}
  shown=${shown//"$PYTHON"/python}
  echo "## $section: $name" | tee "$OUT/$name.txt"
  echo "\$ $shown" | tee -a "$OUT/$name.txt"
  [ -z "$DRY" ] || return 0
  "$@" >>"$OUT/$name.txt" 2>"$OUT/$name.err" || echo "exit $?" | tee -a "$OUT/$name.txt"
  tail -n +3 "$OUT/$name.txt"
}

bench() { # NAME ARGUMENTS...
  local name=$1
  shift
  run "$name" "$PYTHON" -m stretto bench "$@" --output "$OUT/$name$([[ $1 =~ ^(serve|capacity|engine|simulate)$ ]] || echo .json)"
}

compare() { # NAME ARGUMENTS...
  local name=$1
  shift
  run "$name" "$PYTHON" -m stretto.benchmarks.compare "$@" --output "$OUT/$name.json"
}

server() {
  local port pid=
  port=$(free_port)
  local load=(--base-url "http://127.0.0.1:$port" --no-progress --texts en-short)
  echo "\$ stretto serve --model default --port $port"
  if [ -z "$DRY" ]; then
    "$PYTHON" -m stretto serve --model default --port "$port" >"$OUT/server.log" 2>&1 &
    pid=$!
  fi
  bench serve_one serve "${load[@]}" --max-concurrency 1 --num-requests 20
  bench serve_many serve "${load[@]}" --sweep-concurrency 4,8,12 --num-requests 32
  bench capacity capacity "${load[@]}" --slo ttfa_p95_ms=300,underrun_rate=0.01 --duration 8 \
    --tolerance 0.3
  if [ -n "$pid" ]; then
    kill "$pid"
    wait "$pid" 2>/dev/null
  fi
}

for part in $PARTS; do
  case $part in
    step)
      section="AR stage on CPU"
      bench step step "${full[@]}" --sizes 1,4,16,64
      bench step_default step --model default --sizes 1,4,16,64
      ;;
    engine)
      section="AR stage on CPU"
      bench engine engine "${full[@]}" --frames 64 --one-by-one 20 --at-once 10
      ;;
    scheduler)
      section="Scheduler"
      run scheduler "$PYTHON" -m stretto bench scheduler
      ;;
    vocoder)
      section="Vocoder on CPU"
      bench vocoder vocoder "${full[@]}" --rows 1,4 --frames 64,160
      bench vocoder_streamed vocoder "${full[@]}" --streamed --rows 1,4,16 --frames 24
      ;;
    offline)
      section="ChatTTS size, bulk"
      bench offline offline "${full[@]}" --batch-sizes 1,16 --frames 96 --rounds 1
      section="Default voice"
      bench offline_default offline --model default --batch-sizes 1,16,64
      ;;
    server)
      section="Server"
      server
      ;;
    chattts)
      section="Comparisons"
      compare chattts chattts --sizes 1,16 --frames 48 --rounds 1
      ;;
    vllm)
      section="Comparisons"
      compare vllm vllm --sizes 1,16,64 --frames 32 --rounds 2
      ;;
    transformers)
      section="Comparisons"
      compare transformers transformers --sizes 1,16 --frames 32 --rounds 1
      ;;
    agreement)
      section="Simulator"
      bench agreement agreement --model default --request-rate 2 --num-requests 30 --frames 120
      ;;
    simulate)
      section="Simulator"
      bench simulate_t4 simulate --platform t4-assumed --rates 4,8,16 --duration 30 \
        --policies stretto,static,serial,small-chunks
      bench simulate_h200 simulate --platform h200-assumed --rates 100,400 --replicas 1,4 \
        --routers round-robin,least-loaded --duration 15 --texts en-short \
        --slo ttfa_p95_ms=50,underrun_rate=0.01
      ;;
    *)
      echo "no part $part" >&2
      exit 2
      ;;
  esac
done
