//! `/api/events`: the comparison once a second, as server-sent events.
//!
//! Computed once a second for all who listen, and not at all when nobody does. Listeners are few and
//! bounded. Each may lag behind by one event; one that lags further has its connection cut, so that
//! nothing is ever buffered for who does not read.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};

use super::compare::Question;

/// How many may listen at once.
const LISTENERS: usize = 32;
/// Events a listener may lag behind.
const LAG: usize = 1;
const EVERY: Duration = Duration::from_secs(1);

/// Everybody who listens.
#[derive(Debug, Default)]
pub(super) struct Events {
    listeners: RefCell<Vec<Listener>>,
    joined: Notify,
    /// What was sent last, one event for each question: the first thing that who joins is told.
    last: RefCell<Vec<(Question, Bytes)>>,
}

#[derive(Debug)]
struct Listener {
    question: Question,
    events: mpsc::Sender<Bytes>,
    cut: Rc<Notify>,
}

impl Events {
    /// Somebody listens. `cut` is notified when the connection is to be cut. `None`: there are too many.
    pub(super) fn listen(&self, question: Question, cut: &Rc<Notify>) -> Option<mpsc::Receiver<Bytes>> {
        let mut listeners = self.listeners.borrow_mut();
        listeners.retain(|listener| !listener.events.is_closed());
        if listeners.len() >= LISTENERS {
            return None;
        }
        let (events, told) = mpsc::channel(1 + LAG);
        if let Some((_, last)) = self.last.borrow().iter().find(|(of, _)| *of == question) {
            let _ = events.try_send(last.clone());
        }
        listeners.push(Listener { question, events, cut: Rc::clone(cut) });
        self.joined.notify_one();
        Some(told)
    }

    /// Sends, once a second, what `told` says to each question that is listened to.
    pub(super) async fn run(&self, mut told: impl AsyncFnMut(Question) -> Bytes) {
        loop {
            while self.listeners.borrow().is_empty() {
                self.last.borrow_mut().clear();
                self.joined.notified().await;
            }
            self.send(&mut told).await;
            tokio::time::sleep(EVERY).await;
        }
    }

    async fn send(&self, told: &mut impl AsyncFnMut(Question) -> Bytes) {
        let mut fresh: Vec<(Question, Bytes)> = Vec::new();
        while let Some(question) = self.unanswered(&fresh) {
            let event = told(question).await;
            fresh.push((question, event));
        }
        self.listeners.borrow_mut().retain(|listener| {
            let event =
                fresh.iter().find(|(question, _)| *question == listener.question).map(|(_, event)| event.clone());
            let Some(event) = event.filter(|_| !listener.events.is_closed()) else { return false };
            let keeps_up = listener.events.try_send(event).is_ok();
            if !keeps_up {
                listener.cut.notify_one();
            }
            keeps_up
        });
        *self.last.borrow_mut() = fresh;
    }

    /// What somebody asks that none of the events answers; listeners come and go while others are answered.
    fn unanswered(&self, events: &[(Question, Bytes)]) -> Option<Question> {
        let listeners = self.listeners.borrow();
        let mut asked = listeners.iter().filter(|of| !of.events.is_closed()).map(|of| of.question);
        asked.find(|question| !events.iter().any(|(answered, _)| answered == question))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn question() -> Question {
        Question::read(None).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_computed_while_nobody_listens_and_once_a_second_for_all_who_do() {
        let events = Events::default();
        let computed = std::cell::Cell::new(0_u32);
        let tell = async |_| {
            computed.set(computed.get() + 1);
            Bytes::from(computed.get().to_string())
        };
        let story = async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert_eq!(computed.get(), 0);
            let cut = Rc::new(Notify::new());
            let (mut one, mut other) =
                (events.listen(question(), &cut).unwrap(), events.listen(question(), &cut).unwrap());
            for second in 1..=5 {
                assert_eq!(one.recv().await.unwrap(), other.recv().await.unwrap());
                assert_eq!(computed.get(), second);
            }
            let mut late = events.listen(question(), &cut).unwrap();
            assert_eq!(late.recv().await.unwrap(), "5", "who joins does not wait");
            drop((one, other, late));
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert_eq!(computed.get(), 5);
        };
        tokio::select! { () = events.run(tell) => {}, () = story => {} }
    }

    #[tokio::test]
    async fn who_does_not_read_is_cut_and_the_others_go_on() {
        let events = Events::default();
        let (cut, fine) = (Rc::new(Notify::new()), Rc::new(Notify::new()));
        let _lazy = events.listen(question(), &cut).unwrap();
        let mut brisk = events.listen(question(), &fine).unwrap();
        for _ in 0..=1 + LAG {
            events.send(&mut async |_| Bytes::from_static(b"data")).await;
            brisk.recv().await.unwrap();
        }
        assert!(cut.notified().now_or_never().is_some());
        assert!(fine.notified().now_or_never().is_none());
        assert_eq!(events.listeners.borrow().len(), 1);
    }

    #[tokio::test]
    async fn listeners_are_bounded_and_who_leaves_makes_room() {
        let events = Events::default();
        let cut = Rc::new(Notify::new());
        let mut all: Vec<_> = (0..LISTENERS).map(|_| events.listen(question(), &cut).unwrap()).collect();
        assert!(events.listen(question(), &cut).is_none());
        all.pop();
        assert!(events.listen(question(), &cut).is_some());
    }
}
