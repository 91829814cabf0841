# A server on CUDA; the base image brings the matching torch.
#   docker build -t stretto .
#   docker run --gpus all -p 8000:8000 -v stretto-voices:/data stretto --model default
FROM pytorch/pytorch:2.11.0-cuda12.8-cudnn9-runtime

ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 XDG_DATA_HOME=/data HF_HOME=/data/huggingface
WORKDIR /opt/stretto
COPY . .
# Triton compiles its kernels' launchers with a C compiler at the first start.
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/* \
    && pip install ".[cuda]" \
    && useradd --create-home stretto && mkdir -p /data && chown stretto /data

USER stretto
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --start-period=120s \
    CMD python -c "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/ready', timeout=5)"
STOPSIGNAL SIGTERM
ENTRYPOINT ["stretto", "serve", "--host", "0.0.0.0"]
