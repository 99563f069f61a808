"""TrainingReport: component that writes a run's report as one HTML page."""

FILE_NAME = "report.html"
