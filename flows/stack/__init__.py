"""The local services: how they are started, looked after and ended."""
