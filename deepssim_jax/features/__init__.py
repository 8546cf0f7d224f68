"""Local features: keypoints, descriptors, matching of all pairs, and geometric verification."""
