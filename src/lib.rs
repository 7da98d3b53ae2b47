//! doorbell: the smallest VMM in which every variant of a virtio kick and of its completion can be run,
//! switched, measured and explained.
