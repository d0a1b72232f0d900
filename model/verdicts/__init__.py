"""What a run says of new videos."""
