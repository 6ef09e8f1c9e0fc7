"""The engines that make a training's steps."""
