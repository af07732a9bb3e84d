//! What names stand for: answers of DNS become endpoints.

use super::super::compile::Stands;
use super::super::resolve::{Answer, News};
use super::{Control, now, say};

impl Control {
    /// Takes `answer` over: the next plan has what it changes, and probers begin and end with it.
    pub(super) fn resolve(&mut self, answer: Answer) {
        let names = &mut self.naming.names;
        let heard = names.hear(answer, &mut self.live.resolved, now());
        heard.news.iter().for_each(News::log);
        for service in heard.services {
            let written = &self.config.services()[service];
            let stands = Stands::of(written, &self.live);
            say(&self.standings.follow(service, &stands, now()));
            self.probers.follow(service, written, &stands);
        }
    }
}
