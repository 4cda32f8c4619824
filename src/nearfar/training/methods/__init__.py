"""Methods of the literature on texts: what recipes make for ``nearfar train --recipe``, one subject a file."""
