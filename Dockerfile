# docker build -t openmm-nequiplr .                                  for processors
# docker build -t openmm-nequiplr:cuda --build-arg VARIANT=cuda12 .  for GPUs (or cuda13)
# docker run --rm -v "$PWD:/data" openmm-nequiplr nequiplr md au2-mgo --steps 500 --output md
# docker run --rm --gpus all -v "$PWD:/data" openmm-nequiplr:cuda nequiplr doctor
FROM python:3.12-slim

# cpu, cuda12 or cuda13
ARG VARIANT=cpu
# where torch comes from; empty for the index of torch that goes with VARIANT
ARG TORCH_INDEX=
ARG TORCH=2.13.0

ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1
RUN case "$VARIANT" in \
      cpu) index=cpu ;; \
      cuda12) index=cu126 ;; \
      cuda13) index=cu130 ;; \
      *) echo "VARIANT: expected cpu, cuda12 or cuda13, got $VARIANT" >&2; exit 1 ;; \
    esac && \
    pip install "torch==$TORCH" \
      --index-url "${TORCH_INDEX:-https://download.pytorch.org/whl/$index}"

COPY . /src
RUN extras=train,openmmml && \
    if [ "$VARIANT" != cpu ]; then extras="$extras,$VARIANT"; fi && \
    pip install "/src[$extras]" && rm -rf /src

# Caches that any user can write; the doctor compiles the loops into one of them.
ENV NUMBA_CACHE_DIR=/var/cache/nequiplr/loops NEQUIPLR_CACHE=/var/cache/nequiplr
RUN mkdir -p /var/cache/nequiplr/loops /data && nequiplr doctor && \
    chmod -R a+rwX /var/cache/nequiplr /data

WORKDIR /data
CMD ["nequiplr", "info"]
