//! What names stand for: answers of DNS become endpoints.

use std::collections::HashMap;

use super::super::compile::Stands;
use super::super::resolve::{Answer, News};
use super::{Control, now, say};

impl Control {
    /// Takes `answer` over: the next plan has what it changes, and probers begin and end with it.
    pub(super) fn resolve(&mut self, answer: Answer) {
        let names = &mut self.naming.names;
        let heard = names.hear(answer, &mut self.live.resolved, now());
        heard.news.iter().for_each(News::log);
        if heard.services.is_empty() {
            return;
        }
        let services = self.config.services().iter();
        let by_name: HashMap<&str, _> = services.map(|it| (it.name.as_str(), it)).collect();
        for written in heard
            .services
            .iter()
            .filter_map(|name| by_name.get(&**name))
        {
            let stands = Stands::of(written, &self.live);
            say(&self.standings.follow(&written.name, &stands, now()));
            let health = |address| self.standings.health(&written.name, address);
            self.probers.follow(written, &stands, health);
        }
    }
}
