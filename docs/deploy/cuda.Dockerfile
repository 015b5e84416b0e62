# edgeseg on a desktop NVIDIA GPU with CUDA 13 (driver 580 or newer): TensorRT, kernels by nvcc.
# Build engines in this image, on the GPU that will run them.
#
#   docker build -f docs/deploy/cuda.Dockerfile -t edgeseg:cuda .
#   docker run --init --gpus all -v "$PWD/runs:/data/runs" edgeseg:cuda build runs/mine --fp16
#   docker run --init --gpus all -v /etc/edgeseg:/etc/edgeseg:ro -v edgeseg:/data edgeseg:cuda

FROM nvidia/cuda:13.0.1-devel-ubuntu24.04 AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/edgeseg
WORKDIR /src
COPY constraints.txt ./
RUN /opt/edgeseg/bin/pip install --no-cache-dir -c constraints.txt 'tensorrt-cu13==11.4.0.106'
COPY CMakeLists.txt LICENSE README.md pyproject.toml ./
COPY edgeseg edgeseg
RUN /opt/edgeseg/bin/pip install --no-cache-dir -c constraints.txt -C cmake.define.EDGESEG_CUDA=ON \
    '.[build,cuda,av,mqtt,web,metrics]'

FROM nvidia/cuda:13.0.1-base-ubuntu24.04
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgl1 libglib2.0-0t64 python3 \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 10001 --create-home --home-dir /data edgeseg
COPY --from=build /opt/edgeseg /opt/edgeseg
COPY docs/deploy/health.py /opt/edgeseg/
ENV PATH=/opt/edgeseg/bin:$PATH PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility,video
USER 10001
WORKDIR /data
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=15s --start-period=180s \
    CMD ["python3", "/opt/edgeseg/health.py"]
ENTRYPOINT ["edgeseg"]
CMD ["stream", "--config", "/etc/edgeseg/stream.toml", "--keep-trying", "--no-window", "--metrics", "9100"]
