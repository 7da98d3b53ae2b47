use super::{IoThreadChoice, VmError};

/// Which loops need an io_uring, because one of their disks does; `None` for threads that no disk uses.
pub(super) struct ThreadPlan {
    pub(super) main_uring: bool,
    pub(super) threads: Vec<Option<bool>>,
}

/// The plan for disks without a process behind them, given as thread and need of an io_uring, and `iothreads` threads.
pub(super) fn thread_plan(disks: &[(IoThreadChoice, bool)], iothreads: usize) -> Result<ThreadPlan, VmError> {
    let mut plan = ThreadPlan { main_uring: false, threads: vec![None; iothreads] };
    for (disk, &(choice, uring)) in disks.iter().enumerate() {
        let missing = |index| VmError::NoThread { disk, index, threads: iothreads };
        let used = match choice {
            IoThreadChoice::None => {
                plan.main_uring |= uring;
                continue;
            }
            IoThreadChoice::Auto if iothreads == 0 => return Err(missing(0)),
            IoThreadChoice::Auto => &mut plan.threads[..],
            IoThreadChoice::Index(index) => {
                std::slice::from_mut(plan.threads.get_mut(index).ok_or_else(|| missing(index))?)
            }
        };
        for thread in used {
            *thread = Some(thread.unwrap_or(false) | uring);
        }
    }
    Ok(plan)
}
