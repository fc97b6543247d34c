# The gradwire images: server, worker, worker-cuda and demo. `make images` builds them and prints their sizes.
#   docker build --target server -t gradwire-server .
# To pin the base image, add --build-arg BASE=python:3.11-slim-bookworm@sha256:..., or set GRADWIRE_BASE_IMAGE for Compose.
ARG BASE=python:3.11-slim-bookworm

# ---- build stages, which contain pip and are not part of the images -----------------------------------------------
FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
RUN python -m venv --without-pip /opt/gradwire
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
# Install the dependencies first, so that their layer is reused when only gradwire's code changes.
RUN python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
extras = project['optional-dependencies']; \
print('\n'.join(project['dependencies'] + [each for name in ('server', 'fast') for each in extras[name] \
if not each.startswith('gradwire[')]))" > server.txt \
 && python -m pip --python /opt/gradwire/bin/python install -c constraints.txt -r server.txt
COPY proto proto
COPY engine engine
COPY client_sdk client_sdk
COPY server server
COPY worker worker
RUN python -m pip --python /opt/gradwire/bin/python install -c constraints.txt --no-deps . hatchling \
 && python -m pip --python /opt/gradwire/bin/python uninstall -y hatchling

FROM build AS build-cuda
RUN python -m pip --python /opt/gradwire/bin/python install -c constraints.txt '/src[cuda]'

FROM build AS build-demo
RUN python -m pip --python /opt/gradwire/bin/python install -c constraints.txt '/src[demo]'

# ---- images, without pip, a compiler or root ----------------------------------------------------------------------
FROM ${BASE} AS runtime
RUN rm -rf "$(python -c 'import os, pip; print(os.path.dirname(pip.__file__))')" /usr/local/bin/pip* /usr/bin/pip* \
 && useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin gradwire \
 && install -d -o gradwire -g gradwire -m 0700 /data /token /blobs /cache /run/gradwire /run/postgres
ENV PATH=/opt/gradwire/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp \
    GRADWIRE_CACHE=/cache RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=/run/gradwire/ray-token \
    RAY_USAGE_STATS_ENABLED=0 GRPC_ENABLE_FORK_SUPPORT=0 RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=0
COPY docker/start /usr/local/bin/gradwire-start
USER gradwire
WORKDIR /tmp
STOPSIGNAL SIGTERM
LABEL org.opencontainers.image.title="gradwire" \
      org.opencontainers.image.description="Training of small neural networks as a gRPC call" \
      org.opencontainers.image.licenses="Apache-2.0"

FROM runtime AS worker
COPY --from=build /opt/gradwire /opt/gradwire
CMD ["gradwire-start", "worker"]

FROM runtime AS worker-cuda
COPY --from=build-cuda /opt/gradwire /opt/gradwire
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility CUPY_CACHE_DIR=/cache/cupy
CMD ["gradwire-start", "worker"]

FROM runtime AS demo
COPY --from=build-demo /opt/gradwire /opt/gradwire
COPY examples/digits.py /opt/gradwire/digits.py
CMD ["python", "/opt/gradwire/digits.py"]

FROM runtime AS server
COPY --from=build /opt/gradwire /opt/gradwire
EXPOSE 50051 50052
CMD ["gradwire-start", "server"]
