// Package bootset builds and reads boot sets: kernel, scout initramfs, kernel modules and node image as one unit with
// one digest.
//
// Scout hands over to the node image without a new kernel, so the modules inside the image must be the running
// kernel's. Build takes both from the same package and Open refuses a set where they differ.
//
// Building needs root on Debian 12. Packages come through the machine's own apt configuration, in the exact versions
// and digests of a lock file; nothing else is downloaded. Equal inputs give equal files: the node image is packed
// from a tree without clocks, host names or machine ids, and is cached by the digest of its inputs, as is the whole.
package bootset
