"""The Slack edge: the only code that knows Slack's payloads, methods and limits."""
