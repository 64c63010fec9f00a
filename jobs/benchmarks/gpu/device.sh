#!/bin/sh
# `mats benchmark gpu` on a machine that has a GPU, torch and transformers, and no package index. From the checkout's root:
#
#   sh jobs/benchmarks/gpu/device.sh wheels                 where there is an index: what is missing there, into .wheels
#   sh jobs/benchmarks/gpu/device.sh run RESULTS [OPTION …] there, with .wheels carried along: measure, results to RESULTS
#
# PYTHON is the interpreter there (python3), VERSION its version (3.12): wheels are made for it. OPTIONs are those of
# `mats benchmark gpu`, `--section engine` for example.
set -eu
version=${VERSION:-3.12}
python=${PYTHON:-python3}

wheels() {
    # note: without their dependencies, since those that are not named here are there already, in versions that fit torch
    "$python" -m pip download --quiet --no-deps --only-binary=:all: --dest .wheels \
        --python-version "$version" --implementation cp \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_24_x86_64 \
        --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --platform manylinux1_x86_64 \
        pydantic==2.14.3 pydantic-core==2.50.4 annotated-types==0.8.0 typing-inspection==0.4.5 faiss-cpu==1.15.1 \
        msclap==1.3.4 torchlibrosa==0.1.0 librosa==0.10.2.post1 audioread==3.1.0 pooch==1.9.0 platformdirs==4.12.4 \
        decorator==5.3.1 soxr==1.1.0 soundfile==0.14.0 cffi==2.1.1 pycparser==3.0
    du -sh .wheels
}

run() {
    results=$1
    shift
    site=${TMPDIR:-/tmp}/mats-site
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$site" .wheels/*.whl
    export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
    exec "$python" -m jobs.benchmarks.gpu --device cuda --out "$results" "$@"
}

case "${1:-}" in
wheels) wheels ;;
run) shift && run "$@" ;;
*) sed -n '2,8s/^# \{0,1\}//p' "$0" && exit 2 ;;
esac
