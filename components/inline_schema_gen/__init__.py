"""A schema that travels inside the pipeline, so that nothing has to be mounted to read it."""
