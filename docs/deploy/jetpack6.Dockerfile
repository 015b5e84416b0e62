# edgeseg on a Jetson with JetPack 6: its TensorRT 10.3, CUDA 12.6 and OpenCV with GStreamer.
# Build it on the Jetson.
#
#   docker build -f docs/deploy/jetpack6.Dockerfile -t edgeseg:jetpack6 .
#   docker run --init --runtime nvidia -v /tmp/argus_socket:/tmp/argus_socket --group-add video \
#       -v /etc/edgeseg:/etc/edgeseg:ro -v edgeseg:/data edgeseg:jetpack6

FROM nvcr.io/nvidia/l4t-jetpack:r36.4.0 AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
# Expose JetPack's packages; wheels of OpenCV or NumPy 2 would hide or break them.
RUN python3 -m venv --system-site-packages /opt/edgeseg
WORKDIR /src
COPY CMakeLists.txt LICENSE README.md pyproject.toml ./
COPY edgeseg edgeseg
RUN /opt/edgeseg/bin/pip install --no-cache-dir -C cmake.define.EDGESEG_CUDA=ON \
    '.[build,cuda,mqtt,web,metrics]' 'cuda-python<13' 'numpy<2'

FROM nvcr.io/nvidia/l4t-jetpack:r36.4.0
RUN useradd --uid 10001 --create-home --home-dir /data --groups video edgeseg
COPY --from=build /opt/edgeseg /opt/edgeseg
COPY docs/deploy/health.py /opt/edgeseg/
ENV PATH=/opt/edgeseg/bin:$PATH PYTHONUNBUFFERED=1
# Fail the build if TensorRT or OpenCV with GStreamer is missing.
RUN python3 -c "import cv2, tensorrt; assert 'GStreamer:                   YES' in cv2.getBuildInformation()"
USER 10001
WORKDIR /data
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=15s --start-period=180s \
    CMD ["python3", "/opt/edgeseg/health.py"]
ENTRYPOINT ["edgeseg"]
CMD ["stream", "--config", "/etc/edgeseg/stream.toml", "--keep-trying", "--no-window", "--metrics", "9100"]
