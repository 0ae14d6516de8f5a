# leap with what trains a student on a CPU, as an ordinary user.
#   docker build -t leap .
#   docker run --rm -v "$PWD/runs:/work/runs" leap run quickstart
# With an NVIDIA GPU (CUDA comes with PyTorch's packages; the host needs the NVIDIA Container Toolkit):
#   docker build -t leap --build-arg TORCH_INDEX=https://pypi.org/simple .      then: docker run --gpus all ...
# InterCode's and task folders' boxes cannot be made within a container: its seccomp profile bars namespaces (docs/sandboxes.md).
FROM python:3.12-slim
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=train,endpoints,webshop,studies,notebook
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /opt/leap
# PyTorch first: it changes least and weighs most.
RUN pip install --index-url "${TORCH_INDEX}" "torch>=2.9,<3"
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY docs docs
COPY src src
RUN pip install ".[${EXTRAS}]" && leap --version
RUN useradd --create-home --uid 1000 leap && mkdir -p /work/runs && chown -R leap:leap /work
USER leap
WORKDIR /work
ENTRYPOINT ["leap"]
CMD ["--help"]
