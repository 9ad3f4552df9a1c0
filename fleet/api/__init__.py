"""The controller's HTTP API, one noun a file. Handlers translate between HTTP and the desk; they decide nothing."""
