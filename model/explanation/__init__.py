"""Why a run says it: how strange the motion is, and where and when the verdict comes from."""
