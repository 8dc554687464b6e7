"""Tiny models for the tests of encoders."""

from tiny_models import clip_file, timm_file

__all__ = ["clip_file", "timm_file"]
