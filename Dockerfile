# The command line in an image; records and results go to the volume.
#
#   docker build --tag perfusio-jax .
#   docker run --rm --volume perfusio:/work perfusio-jax demo

FROM python:3.12-slim AS build
WORKDIR /source
RUN pip install --no-cache-dir build hatchling
COPY pyproject.toml README.md LICENSE ./
COPY examples examples
COPY src src
RUN python -m build --wheel --no-isolation

FROM python:3.12-slim
COPY --from=build /source/dist /wheels
RUN pip install --no-cache-dir "$(ls /wheels/*.whl)[postgres,notify]" && rm -r /wheels
RUN useradd --create-home --uid 1000 perfusio && install --directory --owner=perfusio /work
USER perfusio
WORKDIR /work
VOLUME /work
ENV OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1
ENTRYPOINT ["perfusio-jax"]
CMD ["--help"]
