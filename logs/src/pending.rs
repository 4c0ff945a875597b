//! A queue of requests whose lines are waited for.

use std::collections::{HashMap, VecDeque};

use tailor_sizing::telemetry::invocation::RequestId;

/// Requests in the order of their first lines, each with what is known of it. Most lines belong to the latest requests, which are
/// next to each other in memory.
#[derive(Debug)]
pub(crate) struct PendingRequests<T> {
    requests: VecDeque<(RequestId, T)>,
    /// The number of each request in the order of all requests of the input.
    numbers: HashMap<RequestId, usize>,
    /// Requests that were removed: the number of the oldest one in the queue.
    removed: usize,
}

impl<T> Default for PendingRequests<T> {
    fn default() -> Self {
        Self { requests: VecDeque::new(), numbers: HashMap::new(), removed: 0 }
    }
}

impl<T: Default> PendingRequests<T> {
    /// What is known of a request, which is added first when it is not in the queue. When `limit` requests are in the queue, the
    /// oldest one is removed and passed to `remove`.
    pub(crate) fn entry(&mut self, request_id: RequestId, limit: usize, remove: impl FnOnce(T)) -> &mut T {
        let place = match self.numbers.get(&request_id) {
            Some(number) => number - self.removed,
            None => {
                if self.requests.len() >= limit
                    && let Some(oldest) = self.remove_oldest()
                {
                    remove(oldest);
                }
                let place = self.requests.len();
                self.numbers.insert(request_id, self.removed + place);
                self.requests.push_back((request_id, T::default()));
                place
            }
        };
        &mut self.requests[place].1
    }

    /// Removes the oldest request.
    pub(crate) fn remove_oldest(&mut self) -> Option<T> {
        let (request_id, oldest) = self.requests.pop_front()?;
        self.numbers.remove(&request_id);
        self.removed += 1;
        Some(oldest)
    }
}
