"""What nbval leaves out of its comparison: live figures, stderr (progress bars) and HTML."""


def pytest_collectstart(collector):
    if hasattr(collector, "skip_compare"):  # nbval's notebook collector
        collector.skip_compare += ("stderr", "text/html", "application/vnd.plotly.v1+json")
