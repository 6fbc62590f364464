"""Structure files as other programs write them, without OpenMM."""
