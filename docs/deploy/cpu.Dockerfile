# edgeseg for network cameras on a CPU, x86-64 or aarch64: ONNX Runtime and OpenVINO.
#
#   docker build -f docs/deploy/cpu.Dockerfile -t edgeseg:cpu .
#   docker run --init -v /etc/edgeseg:/etc/edgeseg:ro -v edgeseg:/data -p 8080:8080 edgeseg:cpu

FROM debian:bookworm-slim AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/edgeseg
WORKDIR /src
COPY CMakeLists.txt LICENSE README.md constraints.txt pyproject.toml ./
COPY edgeseg edgeseg
RUN /opt/edgeseg/bin/pip install --no-cache-dir -c constraints.txt '.[cpu,av,mqtt,web,metrics,openvino]'

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 python3 \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 10001 --create-home --home-dir /data edgeseg
COPY --from=build /opt/edgeseg /opt/edgeseg
COPY docs/deploy/health.py /opt/edgeseg/
ENV PATH=/opt/edgeseg/bin:$PATH PYTHONUNBUFFERED=1
USER 10001
WORKDIR /data
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=15s --start-period=60s \
    CMD ["python3", "/opt/edgeseg/health.py"]
ENTRYPOINT ["edgeseg"]
CMD ["stream", "--config", "/etc/edgeseg/stream.toml", "--keep-trying", "--no-window", "--metrics", "9100"]
