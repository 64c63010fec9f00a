# The image for a cluster, with the versions of constraints.txt:
#   docker build -t registry.example.com/mats:0.1.0 .
#   docker build -t registry.example.com/mats:0.1.0-cuda --build-arg TORCH_INDEX=https://pypi.org/simple .
# The first is for CPUs. The second takes PyTorch with CUDA, which is some 3 GB larger.
#   docker run --rm -v "$PWD:/work" registry.example.com/mats:0.1.0 mats ask sound.wav
# KubeRay starts Ray in it through a login shell, so all of it stands in /usr/local, which such a shell has on its PATH.
ARG PYTHON=3.11
FROM python:${PYTHON}-slim-bookworm

# wget is what KubeRay asks a pod's health with.
RUN apt-get update \
    && apt-get install -y --no-install-recommends wget=1.21.* \
    && rm -rf /var/lib/apt/lists/*

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /opt/mats
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY mats_core mats_core
COPY pipelines pipelines
COPY jobs jobs
RUN pip install --no-cache-dir --root-user-action=ignore -c constraints.txt torch --index-url "$TORCH_INDEX" \
        --extra-index-url https://pypi.org/simple \
    && pip install --no-cache-dir --root-user-action=ignore -c constraints.txt ".[evaluate]" \
    && rm -rf /opt/mats

RUN useradd --create-home --uid 1000 mats \
    && install -d -o mats -g mats -m 0700 /cache
USER 1000
ENV MATS_CACHE=/cache RAY_USAGE_STATS_ENABLED=0
WORKDIR /work
CMD ["mats", "--help"]
