"""The command line: ``nearfar demo``, ``train``, ``evaluate``, ``encode``, ``index``, ``search``, ``report``, ..."""
