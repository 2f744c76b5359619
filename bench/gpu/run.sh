#!/usr/bin/env bash
# Everything that needs a GPU, on a bare machine, without a network:
#
#     bash bench/gpu/run.sh --list                # the stages in the order in which they run, nothing else
#     bash bench/gpu/run.sh [OUT [STAGE...]]      # OUT: bench/results/gpu-<name of the GPU>; STAGE: all but reproduce
#
#   build     the compiled module for this GPU (nvcc), and what it says of itself      at most 300 s
#   sanitize  compute-sanitizer memcheck and racecheck on small sizes, and Triton's     at most 120 s each
#             own checker of races where the installed Triton has it (consan)
#   bench     the benchmarks of operators and inference                                 at most 400 s
#   profile   what Nsight Compute counts of the CUDA kernels                            at most 100 s
#   predict   predictions from the machine code beside what bench measured              at most 100 s
#   test      tests/ops: all backends against the float64 reference, CUDA graphs;        at most 480 s
#             tests/training/test_gpu.py: counting and training on the GPU
#   train     training steps of hrnet_w40: eager, captured; compiled                    at most 280 s each
#   reproduce tables 1, 3 and 4 on real images, three seeds side by side                    at most 540 s; calling again goes on
#
# All together end within 25 minutes ($DKPNET_MINUTES): what is left of them limits every stage; `reproduce` runs only where it is
# named. A stage that fails or runs out of time does not stop the others; its rows are written when pytest ends, also when it is interrupted.
# Where a call has ten minutes, with DKPNET_MINUTES=9 (a whole number) before each: `OUT build test`, `OUT build sanitize`, `OUT build bench`,
# `OUT build train`, `OUT build`, `OUT reproduce`. A call replaces summary.json and log.txt of the one before.
#
# reproduce takes its images from $DKPNET_IMAGES, a folder that pack.py wrote (SHA, SHB and BRT take 60 MB), and EfficientNet-Lite0's
# weights from the file $DKPNET_WEIGHTS; without them it says so. Its runs lie in build/reproduction until they are whole.
#
# Needs a python3 (or $PYTHON) with torch, triton, pytest, pytest-benchmark, hypothesis, timm, tyro, cattrs, cmake, ninja, pybind11
# and setuptools; DKPNET_WHEELS=FOLDER adds wheels, DKPNET_COMMIT names the commit where there is no git. Installs into a
# temporary folder only. Without a GPU it says so and rehearses: small sizes, the CPU's backend, OUT in build/.
#
# OUT gets summary.json, info.txt, bench.json, profile.md, predictions.md, train.json, train-compiled.json, tests.xml, log.txt
# (the last two name paths of the machine and stay out of git).
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 2

all_stages=(build sanitize bench profile predict test train)
if [ "${1:-}" = --list ]; then
    printf '%s\n' "${all_stages[@]}" reproduce
    exit 0
fi
python="${PYTHON:-python3}"
gpu="$("$python" -c 'import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else "")')" || exit 2
if [ -n "$gpu" ]; then
    out="${1:-bench/results/gpu-$(tr -c 'A-Za-z0-9\n' '-' <<<"$gpu" | tr '[:upper:]' '[:lower:]')}"
    marker="gpu" tiny=() exercised=(cuda triton) chosen=()
    capability="$("$python" -c 'import torch; print("%d%d" % torch.cuda.get_device_capability())')"
    export DKPNET_CUDA_ARCHS="${DKPNET_CUDA_ARCHS:-$capability}" DKPNET_REQUIRE_CUDA=1
else
    out="${1:-build/gpu-rehearsal}"
    marker="not gpu" tiny=(--tiny) exercised=(cpp) chosen=(-k test_opcheck) # the CPU's tests run elsewhere
fi
shift || true
stages=("$@")
[ ${#stages[@]} -gt 0 ] || stages=("${all_stages[@]}")
mkdir -p "$out" && out="$(cd "$out" && pwd)" || exit 2
site="${TMPDIR:-/tmp}/dkpnet_ext-site"
export PYTHONPATH="$site:$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
export DKPNET_COMMIT="${DKPNET_COMMIT:-$(git rev-parse HEAD 2>/dev/null)}"

limited() { # an interrupt first: pytest then ends with what it has
    local seconds="$1" left=$((${DKPNET_MINUTES:-25} * 60 - 40 - SECONDS)) # 40: the last kill and the summary
    shift
    [ "$left" -gt 0 ] || return 124
    [ "$seconds" -le "$left" ] || seconds="$left"
    timeout --signal=INT --kill-after=20 "$seconds" "$@"
}

stage_build() {
    rm -rf "$site"
    mkdir -p "$site"
    local install=("$python" -m pip install --quiet --no-deps --no-index --upgrade --target "$site") failed=0
    if [ -n "${DKPNET_WHEELS:-}" ]; then
        limited 60 "${install[@]}" "$DKPNET_WHEELS"/*.whl || return
    fi
    if ! limited 300 "${install[@]}" --no-build-isolation .; then
        echo "pip could not build: CMake alone, so that the other stages have the module"
        failed=1
        cmake -G Ninja -S . -B build/gpu -DDKPNET_CUDA=ON -DPython_EXECUTABLE="$(command -v "$python")" \
            -DDKPNET_VERSION="$("$python" -c 'import dkpnet_ext; print(dkpnet_ext.__version__)')" \
            -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" \
            && limited 240 cmake --build build/gpu && cp build/gpu/_dkpnet_ext*.so "$site"
    fi
    # The command, or what it prints where its parser (tyro) is not installed.
    "$python" -m dkpnet_ext.info >"$out/info.txt" 2>/dev/null \
        || "$python" -c 'from dkpnet_ext.info import report; print(report())' >"$out/info.txt" || failed=1
    cat "$out/info.txt"
    return $failed
}

stage_test() {
    local parallel=()
    if [ -n "$gpu" ] && "$python" -c 'import xdist' 2>/dev/null; then
        parallel=(-n "$(($(nproc) * 3 / 4))") # most of the time goes into compiling Triton kernels
    fi
    limited 480 "$python" -m pytest tests/ops tests/training/test_gpu.py -m "$marker" "${chosen[@]}" "${parallel[@]}" -q -p no:cacheprovider \
        --junitxml="$out/tests.xml"
}

stage_sanitize() {
    # First without the tools, which slow compilers down: Triton then finds its kernels in its cache.
    limited 120 "$python" bench/gpu/exercise.py "${exercised[@]}" || return
    if [ -z "$gpu" ]; then
        echo "no GPU: compute-sanitizer did not run"
        return
    fi
    local tool failed=0
    for tool in memcheck racecheck; do
        echo "-- compute-sanitizer --tool $tool"
        # Without PyTorch's caching allocator a tensor ends where its allocation ends.
        PYTORCH_NO_CUDA_MEMORY_CACHING=1 limited 120 compute-sanitizer --tool "$tool" --error-exitcode 1 \
            --target-processes application-only "$python" bench/gpu/exercise.py "${exercised[@]}" || failed=1
    done
    if "$python" -c 'from triton import knobs; knobs.compilation.instrumentation_mode' 2>/dev/null; then
        echo "-- Triton's concurrency sanitizer"
        TRITON_INSTRUMENTATION_MODE=consan TRITON_ALWAYS_COMPILE=1 limited 120 "$python" bench/gpu/exercise.py triton || failed=1
    else
        echo "this Triton has no checker of races"
    fi
    return $failed
}

benchmarks() { # seconds, file, pytest's arguments
    local seconds="$1" file="$2"
    shift 2
    limited "$seconds" "$python" -m pytest "$@" -m "$marker" "${tiny[@]}" -q -p no:cacheprovider \
        --benchmark-json="$out/$file" --benchmark-columns=median,iqr,rounds
}

stage_bench() {
    # What a short loan must not miss comes first.
    local stem files=()
    for stem in head reweight variational pool density transport bayesian inference growth; do
        files+=("bench/test_$stem.py")
    done
    benchmarks 400 bench.json "${files[@]}" --durations=10
}

stage_profile() {
    if [ -z "$gpu" ]; then
        echo "no GPU: Nsight Compute did not run"
        return
    fi
    limited 100 "$python" bench/gpu/ncu.py | tee "$out/profile.md"
}

stage_predict() {
    local measured=()
    [ ! -f "$out/bench.json" ] || measured=("$out/bench.json")
    limited 100 "$python" bench/gpu/predict.py "${measured[@]}" | tee "$out/predictions.md"
}

stage_train() {
    local failed=0
    benchmarks 280 train.json bench/test_step.py -k "not compiled" || failed=1
    if [ -n "$gpu" ]; then
        benchmarks 280 train-compiled.json bench/test_step.py -k compiled || failed=1
    fi
    return $failed
}

stage_reproduce() {
    if [ -z "${DKPNET_IMAGES:-}" ]; then
        echo "no images: DKPNET_IMAGES does not name a folder of bench/gpu/pack.py; nothing is trained"
        return
    fi
    local folder seed log status=0 pids=() specs=()
    for folder in "$DKPNET_IMAGES"/*/; do
        folder="${folder%/}"
        specs+=("${folder##*/}=$folder")
    done
    local tables=("$python" -m dkpnet_ext.reproduce table1 table3 table4 table6 table7 latent attention levels small
        --data "${specs[@]}" --weights "${DKPNET_WEIGHTS:-imagenet}" --epochs "${DKPNET_EPOCHS:-20}"
        --output build/reproduction)
    export DKPNET_CACHE="${DKPNET_CACHE:-$PWD/build/cache}"
    mkdir -p build
    for seed in 0 1 2; do # side by side: a small network leaves most of a GPU idle
        limited 540 "${tables[@]}" --seeds "$seed" >"build/reproduction-$seed.log" 2>&1 &
        pids+=($!)
    done
    for seed in 0 1 2; do
        wait "${pids[$seed]}" || status=$?
        log="build/reproduction-$seed.log"
        echo "seed $seed: $(tr '\r' '\n' <"$log" | grep '^run ' | tail -n 1); $(tr '\r' '\n' <"$log" | tail -n 1)"
    done
    if [ $status -eq 0 ]; then
        limited 120 "${tables[@]}" --seeds 0 1 2 || status=$?
    fi
    # Whatever there is: the machine may be gone before the next call.
    mkdir -p "$out/reproduction" && cp build/reproduction/{README.md,*.csv,*.png} "$out/reproduction" 2>/dev/null
    return $status
}

main() {
    [ -n "$gpu" ] || echo "no GPU: this is a rehearsal with small sizes on the CPU; nothing of a GPU is tested or measured"
    local stage status began word json="" text="" failed=0
    for stage in "${stages[@]}"; do
        echo "== $stage"
        began=$SECONDS
        "stage_$stage"
        status=$?
        case $status in
            0) word="passed" ;;
            124 | 137) word="FAILED: out of time" failed=1 ;;
            *) word="FAILED: exit $status" failed=1 ;;
        esac
        text+="$(printf '%-10s %-20s %4d s' "$stage" "$word" $((SECONDS - began)))"$'\n'
        json+="${json:+, }{\"stage\": \"$stage\", \"result\": \"$word\", \"seconds\": $((SECONDS - began))}"
    done
    printf '{"gpu": "%s", "commit": "%s", "date": "%s", "stages": [%s]}\n' \
        "${gpu:-none: a rehearsal}" "$DKPNET_COMMIT" "$(date -u +%FT%TZ)" "$json" >"$out/summary.json"
    echo "== summary: ${gpu:-no GPU, a rehearsal}"
    "$python" bench/report.py "$out" --short
    printf '%s' "$text"
    return $failed
}

for stage in "${stages[@]}"; do
    declare -F "stage_$stage" >/dev/null || { echo "$stage: no such stage; there are ${all_stages[*]} reproduce" && exit 2; }
done
main 2>&1 | tee "$out/log.txt"
exit "${PIPESTATUS[0]}"
