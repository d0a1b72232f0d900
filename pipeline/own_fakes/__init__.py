"""Fakes made of real videos: the face itself, moved, recoloured and blended back."""
