#!/usr/bin/env bash
# Everything that only a GPU can answer, in under 8 minutes and without a network.
# Usage: benchmarks/gpu_suite.sh [OUT] [PART...]
# PYTHON chooses the interpreter (torch 2.11 or later with CUDA; Stretto need not be installed).
# DEVICE=cpu is a dry run of every command at tiny sizes.
# Text needs sentencex; the server also aiohttp, msgspec, zmq, soundfile, soxr, av, prometheus_client.
# A part that fails, hangs or lacks a package costs the others nothing: each has a limit of its own,
# all together have BUDGET seconds, and what a part has printed is on disk at once. A part at its
# limit is interrupted, so that the tests still tell what failed until then.
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
DEVICE=${DEVICE:-cuda}
OUT=${1:-gpu_results}
shift
PARTS=${*:-weights step offline engine attention vocoder tests serve platform}
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 PYTHONUNBUFFERED=1
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
failed=0

if [ "$DEVICE" = cuda ]; then
  BUDGET=${BUDGET:-470} slack=1 model=random dtype=bfloat16
else
  BUDGET=${BUDGET:-3000} slack=5 model=random-tiny dtype=float32
fi

free_port() {
  "$PYTHON" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

choose() { # ON_CUDA ON_CPU
  if [ "$DEVICE" = cuda ]; then echo "$1"; else echo "$2"; fi
}

part() { # NAME SECONDS COMMAND...
  local name=$1 limit=$(($2 * slack)) began=$SECONDS code=0 left=$((BUDGET - SECONDS))
  shift 2
  [ "$limit" -le "$left" ] || limit=$left
  echo "== $name: $*"
  if [ "$limit" -lt 5 ]; then
    echo "-- $name: left out, no time"
    failed=1
    return 1
  fi
  timeout -k 10 -s INT "$limit" "$@" >"$OUT/$name.txt" 2>&1 || code=$?
  tail -n 40 "$OUT/$name.txt"
  echo "-- $name: exit $code after $((SECONDS - began)) s"
  [ "$code" -eq 0 ] || failed=1
  return "$code"
}

# Without an installation, a link makes the checkout importable.
link=$(mktemp -d)
trap 'rm -rf "$link"' EXIT
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
if ! (cd / && "$PYTHON" -c "import stretto") 2>/dev/null; then
  ln -s "$PWD" "$link/stretto"
  export PYTHONPATH="$link:$PYTHONPATH"
fi

"$PYTHON" - "$DEVICE" <<'PY' | tee "$OUT/machine.txt"
import importlib.util
import sys

import torch

assert sys.argv[1] == "cpu" or torch.cuda.is_available(), "no CUDA device"
name = torch.cuda.get_device_name() if sys.argv[1] == "cuda" else "cpu (dry run)"
print("torch", torch.__version__, "CUDA", torch.version.cuda, "on", name)
wanted = "triton xformers numba tokenizers safetensors transformers sentencex msgspec zmq aiohttp"
wanted += " soundfile soxr av wetext prometheus_client pynvml pytest"
print("missing:", *(m for m in wanted.split() if importlib.util.find_spec(m) is None))
try:
    import numba
except ImportError as error:  # it refuses a NumPy that is too new for it
    print("numba does not import:", error)
PY
[ "${PIPESTATUS[0]}" -eq 0 ] || exit 1

stretto=("$PYTHON" -m stretto --log-level info)  # the backend, warm-up times, where errors arose
bench=("${stretto[@]}" bench)
engine=(--model "$model" --device "$DEVICE" --dtype "$dtype")
engine+=(--max-num-seqs "$(choose 256 4)")

serve() {
  # One server, three loads: twenty requests a second, ten at once, one.
  local port folder server load
  if ! "$PYTHON" -c "import stretto.server.app" 2>"$OUT/server.txt"; then
    echo "-- serve: left out, $(tail -n 1 "$OUT/server.txt")"
    failed=1
    return
  fi
  port=$(free_port)
  folder=$("$PYTHON" -m stretto.benchmarks.engine_setup "$model")  # the last --model counts
  "${stretto[@]}" serve "${engine[@]}" --model "$folder" --port "$port" \
    --max-vocoder-frames "$(choose 8192 512)" >"$OUT/server.txt" 2>&1 &
  server=$!
  load=("${bench[@]}" serve --base-url "http://127.0.0.1:$port" --no-progress --warmup 2
    --ready-timeout "$(choose 60 600)" --timeout "$(choose 60 600)"
    --extra-body "{\"max_new_tokens\": $(choose 300 12)}"
    --min-seconds-per-char 0 --max-seconds-per-char 100)
  if part serve_poisson 80 "${load[@]}" --request-rate 20 --duration "$(choose 15 1)" \
    --slo ttfa_p95_ms=50,underrun_rate=0 --output "$OUT/serve_poisson"; then
    part serve_ten 20 "${load[@]}" --max-concurrency 10 --num-requests "$(choose 40 4)" \
      --output "$OUT/serve_ten"
    part serve_one 20 "${load[@]}" --max-concurrency 1 --num-requests "$(choose 8 2)" \
      --output "$OUT/serve_one"
  fi
  kill "$server" 2>/dev/null
  wait "$server" 2>/dev/null
}

for name in $PARTS; do
  case $name in
    weights) part weights 40 "$PYTHON" -m stretto.benchmarks.engine_setup "$model" ;;
    step) # a decode step at 256 sequences against the memory floor; compiles the kernels, too
      part step 100 "${bench[@]}" step "${engine[@]}" --max-vocoder-frames 16 --sizes "$(choose 1,16,64,256 1,2)" \
        --contexts "$(choose 128,512 16)" --steps "$(choose 48 3)" --no-split \
        --output "$OUT/step.json"
      ;;
    offline) # seconds of audio per second, and how busy the GPU is
      part offline 90 "${bench[@]}" offline "${engine[@]}" --frames "$(choose 256 8)" \
        --max-vocoder-frames "$(choose 16384 512)" --batch-sizes "$(choose 64,256,512 1,2)" \
        --output "$OUT/offline.json"
      ;;
    engine) # first request against later ones, ten at once, 20 requests/s
      part engine 85 "${bench[@]}" engine "${engine[@]}" --one-by-one "$(choose 100 3)" \
        --max-vocoder-frames "$(choose 8192 512)" --at-once "$(choose 10 2)" --request-rate 20 \
        --num-requests "$(choose 300 4)" --frames "$(choose 128 8)" \
        --slo ttfa_p95_ms=50,underrun_rate=0 --output "$OUT/engine"
      ;;
    attention) # every backend beside the reference and the floor
      part attention 45 "${bench[@]}" attention --device "$DEVICE" --dtype "$dtype" \
        --backends "$(choose triton,varlen,xformers,reference reference)" \
        --sizes "$(choose 1,64,256 2)" --contexts "$(choose 128,1024 32)" \
        --prefill "$(choose 128 16)" --repeats 4 --output "$OUT/attention.json"
      ;;
    vocoder) # whole sequences, then chunks of streams
      for kind in whole streamed; do
        flag=()
        [ "$kind" = whole ] || flag=(--streamed)
        part "vocoder_$kind" 45 "${bench[@]}" vocoder "${engine[@]}" "${flag[@]}" \
          --max-num-seqs "$(choose 64 4)" --max-vocoder-frames "$(choose 16384 512)" --rows "$(choose 1,16,64 1,2)" \
          --frames "$(choose 16,48,256 8)" --repeats "$(choose 10 1)" \
          --output "$OUT/vocoder_$kind.json"
      done
      ;;
    tests) # the project's own settings name plug-ins that may be missing
      part tests 120 "$PYTHON" -m pytest -c /dev/null --rootdir . --import-mode importlib \
        -p no:cacheprovider -v --tb short -m gpu tests/test_gpu.py
      ;;
    serve) serve ;;
    platform) # costs for `bench simulate`
      part platform 60 "${bench[@]}" step "${engine[@]}" --sizes "$(choose 1,16,64,256 1,2)" \
        --steps "$(choose 24 3)" --no-split --platform-out "$OUT/platform.json"
      ;;
    *)
      echo "no part $name" >&2
      exit 2
      ;;
  esac
done
echo "results in $OUT; took $SECONDS s"
exit "$failed"
