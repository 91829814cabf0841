# A server on CUDA; the base image brings the matching torch.
#   docker build -t stretto .
#   docker run --gpus all --init --stop-timeout 90 -p 8000:8000 -v stretto-data:/data stretto
# Options of `stretto serve` go at the end, such as --model PATH. Docker kills after 10 seconds unless
# told otherwise, and running streams may take --drain-timeout-s to finish.
FROM pytorch/pytorch:2.11.0-cuda12.8-cudnn9-runtime

# Caches and uploaded voices live in the volume, so that a new container does not compile again. The
# image's Python belongs to Debian, which lets pip add to it only when told (PEP 668).
ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_BREAK_SYSTEM_PACKAGES=1 \
    XDG_DATA_HOME=/data \
    XDG_CACHE_HOME=/data/cache \
    HF_HOME=/data/huggingface \
    TRITON_CACHE_DIR=/data/triton

# Triton compiles its kernels' launchers at the first start: a C compiler and Python's headers.
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev python3-dev \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/stretto
COPY . .
RUN python3 -m pip install ".[cuda]" \
    && useradd --create-home stretto \
    && mkdir -p /data \
    && chown stretto /data

# Not in the source folder, whose package folders are named like other packages.
WORKDIR /home/stretto
USER stretto
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=6s --start-period=300s \
    CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/ready', timeout=5)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["stretto", "serve", "--host", "0.0.0.0"]
