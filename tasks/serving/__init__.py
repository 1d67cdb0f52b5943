"""The model server and the page for players."""
