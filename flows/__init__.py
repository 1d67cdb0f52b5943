"""When and where: Prefect flows over the steps, the local stack and the command `dadc`."""
