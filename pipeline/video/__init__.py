"""Video files: probing, decoding, resizing, fingerprints, encoding."""
