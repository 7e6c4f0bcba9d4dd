# The app's image with Ray in it, for ray_service.yaml. From the project's folder:
#
#     docker build -f infra/kubernetes/ray.Dockerfile --build-arg APP=sd-pokemon:cuda -t sd-pokemon:ray .
ARG APP=sd-pokemon:cuda
# hadolint ignore=DL3006
FROM ${APP}
USER 0:0
WORKDIR /app
# KubeRay asks with wget whether a node lives. Pip goes again, as in the app's own image.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3-pip wget \
    && python3 -m pip --python /app/.venv/bin/python install --no-cache-dir "ray[default,serve]==2.60.*" \
    && apt-get purge -y --auto-remove python3-pip \
    && rm -rf /var/lib/apt/lists/*
COPY deploy/ray_serve.py deploy/
COPY deploy/cluster deploy/cluster
USER 10001:10001
ENV PYTHONPATH=/app \
    RAY_USAGE_STATS_ENABLED=0
