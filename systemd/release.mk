# The Makefile of a release tarball: `make install` and what belongs to it, all done by install.sh beside it.
.PHONY: help install upgrade rollback check
help:
	@./install.sh --help
install upgrade:
	@./install.sh install
rollback:
	@./install.sh rollback
check:
	@./install.sh check
