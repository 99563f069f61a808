"""Runners: the local one, Kubeflow Pipelines and Vertex AI Pipelines."""
