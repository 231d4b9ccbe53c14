"""Exports of analysers, read as they are: recognised, described by tables, made samples."""
