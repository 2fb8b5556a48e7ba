#!/bin/sh
# Only simulated.
exit 0
